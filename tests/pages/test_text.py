"""Text is text: what Streamlit would make more of is escaped, and the source shows nothing that is not."""

from pathlib import Path

import pytest

from app.text import JOINER, MOST_LETTERS, code, file_name, plain
from tests.pages.conftest import ROOT
from tests.pages.shown_strings import findings

SOURCES = sorted([*(ROOT / "app").rglob("*.py"), *(ROOT / "pages").glob("*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_foreign_is_shown_as_markdown(path: Path):
    assert not findings(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        'st.caption(f"People wrote: {row[0]}")',
        "st.markdown(row)",
        'st.info(str(error))',
        'st.button("OK", help=row)',
        'left.metric("Name", row)',
        'st.pills("Noun", list(row))',
        'st.pills("Noun", nouns, format_func=str)',
        'with st.expander(f"{row}: done"): pass',
        'st.html(f"<b>{row}</b>")',
        'st.html(plain(row))',
        'launcher.offer(run, words, "Go", f"Starts {row}")',
        'column.TextColumn("Noun", help=row)',
        'told = "fine"; told += row; st.toast(told)',
        'parts = ["fine"]; parts.append(row); st.toast(", ".join(parts))',
        'st.image(b"", caption=row)',
        'st.caption(f"{row:>10}")',
    ],
)  # fmt: skip
def test_foreign_text_is_found_wherever_it_goes_in(line):
    assert findings(f"def page(run, row, words, nouns):\n    {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        'st.caption(f"People wrote: {plain(row)}, {len(row):,} of {row[0]:.2f}")',
        'told = "one" if row else "two"; st.markdown(f"**{told}**")',
        'st.selectbox("Noun", nouns)',
        'st.pills("Noun", nouns, format_func=plain)',
        'st.html(f"<b>{html.escape(row)}</b>")',
        'parts = ["fine"]; parts.append(plain(row)); st.toast(", ".join(parts))',
        "st.info(TOLD[row])",
    ],
)
def test_escaped_text_numbers_and_our_own_words_are_no_finding(line):
    assert not findings(f"def page(run, row, words, nouns):\n    {line}\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog on the grass.", "a dog on the grass."),
        ("dog (not in the references)", "dog (not in the references)"),
        ("![i](http://h.test/a)", rf"!\[i\](http{JOINER}\://h.test/a)"),
        ("www.h.test, me@h.test", f"www{JOINER}.h.test, me@{JOINER}h.test"),
        (":skull: :material/home: a:b", rf"\:{JOINER}skull: \:{JOINER}material/home: a\:b"),
        (":red[x] $y$ `z` *a* _b_ ~c~ <i> &lt;", r"\:red\[x\] \$y\$ \`z\` \*a\* \_b\_ \~c\~ \<i\> \&lt;"),
        ("a -> b -- <-> ~=", rf"a -{JOINER}\> b -{JOINER}- \<{JOINER}-\> \~{JOINER}="),
        ("# head", r"\# head"),
        ("12. point", r"12\. point"),
        ("- point", r"\- point"),
        ("  two\n\n    lines ", "two lines"),
        ("a\u202egnp.b\x00\ud800", "a\ufffdgnp.b\ufffd\ufffd"),
        (3, "3"),
    ],
)
def test_plain_escapes_what_markdown_would_read(text, shown):
    assert plain(text) == shown


def test_a_very_long_text_is_cut():
    assert len(plain("a" * 10**6)) == MOST_LETTERS
    assert plain("a" * 50, 10) == "aaaaaaaaa…"


@pytest.mark.parametrize(
    ("text", "shown"), [("mmn runs", "`mmn runs`"), ("a ` b", "``a ` b``"), ("`a`", "`` `a` ``"), ("", "`  `")]
)
def test_code_is_fenced_by_more_backticks_than_it_has(text, shown):
    assert code(text) == shown


def test_a_download_keeps_no_folder_and_no_line_break_in_its_name():
    assert file_name("../../etc/pass\r\nwd") == "_.._etc_pass_wd"
    assert file_name("5e6f-zèbre (2).png") == "5e6f-zèbre (2).png"
