"""What do a picture's image tokens say, read as words?"""

from __future__ import annotations

from typing import Final

from mmn.studies.study import Page, Study

QUESTION: Final = "What do a picture's image tokens say, read as words?"

STUDY: Final = Study(
    "lens",
    QUESTION,
    command="mmn.studies.lens.command",
    stages={"lens": "reading image tokens as words"},
    tables="mmn.studies.lens.tables:TABLES",
    pages=(Page("lens", "Lens", ":material/search:", QUESTION),),
)
