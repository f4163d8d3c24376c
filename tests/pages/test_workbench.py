"""Manners of the workbench: one bar of filters, a run's label, deletion with undo, search, SQL, the first visit."""

from app import resources, state
from mmn.view import View
from tests.pages.test_filters_and_questions import charts, go

RUN, OLD = "3f2a9c1b00112233", "77aa9c1b00112233"
WITH_FILTERS = ("image", "degradation", "specificity")


def captions(at) -> str:
    return " ".join(one.value for one in at.main.caption)


def button(at, key):
    return next(one for one in at.button if one.key == key)


def test_every_page_has_the_one_bar_and_each_filter_says_what_it_is(whole_cache, open_app):
    at = open_app("neuron")
    for page in WITH_FILTERS:
        go(at, page)
        assert [one.key for one in at.button].count("reset-filters") == 1, page
        kinds = (at.multiselect, at.selectbox, at.slider)
        shown = [one for kind in kinds for one in kind if one.key in state.SHARED]
        assert shown, page
        assert all(one.proto.help for one in shown), page


def test_a_link_restores_the_view(whole_cache, open_app):
    """What the widgets choose by hand is what an address of the same view chooses; the browser writes that address."""
    at = open_app()
    first = charts(at)
    concept = at.multiselect(key="concept").options[0]
    at.multiselect(key="concept").set_value([concept])
    at.slider(key="layers").set_value((1, 2))
    at.multiselect(key="k").set_value(["10 (3.9 %)"])
    at.run()
    view = View(concepts=(concept.partition(" (")[0],), layers=(1, 2), ks=(10,))
    assert charts(open_app(**view.to_address())) == charts(at) != first


def test_reset_puts_every_filter_back_on_this_page_and_the_others(whole_cache, open_app):
    at = open_app(layers=["1", "2"], method=["activation"], general=["20 %"], show=["distinct"], k=["10"])
    first = charts(open_app())
    go(at, "image")
    assert at.selectbox(key="general").value == "20 %"
    go(at, "layers")
    assert at.query_params["show"], "a filter of this page alone comes back, too"
    button(at, "reset-filters").click().run()
    assert at.slider(key="layers").value == (0, 3)
    assert at.selectbox(key="general").value == "all"
    assert charts(at) == first
    assert not set(at.query_params) & {*state.SHARED, *state.OWN}


def test_a_filter_that_a_page_does_not_read_is_said_to_have_no_effect_and_kept(whole_cache, open_app):
    at = open_app("lens", general=["10 %"])
    assert "Without effect on this page:] Hide general units over 10 %" in captions(at)
    go(at, "layers")
    assert at.selectbox(key="general").value == "10 %"
    assert "Without effect on this page" not in captions(at)
    at.toggle(key="agreement").set_value(True).run()
    assert "Without effect on this part:] the filters of layers and of general units" in captions(at)


def test_a_run_is_renamed_where_it_is_listed_and_picked(filled_cache, open_app):
    at = open_app("runs")
    next(one for one in at.text_input if one.label == "Name").set_value("First *try*")
    next(one for one in at.button if one.label == "Save").click().run()
    assert not at.error
    assert at.sidebar.selectbox[0].value == "First *try* 3f2a9c1b", "the same run, by its new name"
    assert at.dataframe[0].value["run"].tolist() == ["First *try*", "deep-llava gallery 77aa9c1b"]
    go(at, "layers")
    assert at.sidebar.selectbox[0].value == "First *try* 3f2a9c1b"
    assert open_app(run=["specimen gallery 3f2a9c1b"]).sidebar.selectbox[0].value == "First *try* 3f2a9c1b"


def test_a_deleted_run_comes_back_until_the_page_is_left(filled_cache, open_app):
    at = open_app("runs")
    button(at, "delete-run").click().run()
    assert at.sidebar.selectbox[0].options == ["deep-llava gallery 77aa9c1b"]
    assert (filled_cache / "runs" / RUN).is_dir(), "nothing is lost yet"
    button(at, f"undo-{RUN}").click().run()
    assert len(at.sidebar.selectbox[0].options) == 2
    go(at, "layers")
    assert (filled_cache / "runs" / RUN).is_dir()
    go(at, "runs")
    at.sidebar.selectbox[0].set_value("deep-llava gallery 77aa9c1b").run()
    button(at, "delete-run").click().run()
    go(at, "layers")
    assert not (filled_cache / "runs" / OLD).exists()
    assert at.sidebar.selectbox[0].options == ["specimen gallery 3f2a9c1b"]


def test_a_folder_of_another_place_is_loaded_and_a_wrong_one_refused(filled_cache, tmp_path_factory, open_app):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (filled_cache / "runs" / OLD).rename(elsewhere / OLD)
    at = open_app("runs")
    for folder, is_fine in ((str(filled_cache / "labels"), False), (str(elsewhere), True)):
        at.text_input(key="import-folder").set_value(folder)
        next(one for one in at.button if one.label == "Load").click().run()
        assert bool(at.error) is not is_fine
    assert len(at.sidebar.selectbox[0].options) == 2


def test_search_opens_what_is_meant(filled_cache, open_app):
    at = open_app("runs")
    for text, page, address in (("L2.u7", "Neuron", "L2.u7"), ("zebra", "Image", "zebra ("), ("run", "Runs", "")):
        at.text_input(key="search").set_value(text).run()
        if at.title[0].value != page:  # several are meant
            next(one for one in at.sidebar.button if one.key == "found-0").click().run()
        assert (at.title[0].value, at.text_input(key="search").value) == (page, "")
        assert address in str(dict(at.query_params))
    at.text_input(key="search").set_value("no such ![thing](http://h.test)").run()
    assert any("Nothing in this run" in one.value and "\\[thing" in one.value for one in at.sidebar.caption)


def test_sql_answers_and_says_what_it_does_not(filled_cache, open_app):
    at = open_app("sql")
    for text, is_fine in (("SELECT count(*) AS n FROM score", True), ("DROP TABLE score", False)):
        at.text_area(key="sql").set_value(text)
        next(one for one in at.button if one.label == "Answer").click().run()
        assert bool(at.error) is not is_fine
    assert at.error[0].value.startswith("Only SELECT")
    assert resources.store().has_rows(RUN, "score")


def test_the_first_visit_explains_itself_once_and_blocks_nobody(filled_cache, open_app):
    at = open_app()
    (card,) = (one for one in at.expander if one.label.startswith("New here"))
    assert card.proto.expanded
    assert len(card.markdown[0].value.split()) < 200, "read in a minute"
    assert charts(at), "the page is there all the same"
    next(one for one in at.button if one.label == "Got it").click().run()
    assert not next(one for one in open_app().expander if one.label.startswith("New here")).proto.expanded
