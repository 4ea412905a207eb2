"""The page of errors says what emjax says: docs/howto/errors.md, against the source."""

import re
from pathlib import Path

from docs.messages import VARIES, strings
from tests.run.test_findings import SAID, WHY_IT_STOPPED

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "howto" / "errors.md").read_text()
# the term of a definition list, in code: a few words of a message
ENTRIES = re.findall(r"^(`{1,2})(.+?)\1\n: ", PAGE, re.MULTILINE)
TERMS = [term for _, term in ENTRIES]


def holders(term: str, messages: list[str]) -> list[str]:
    """Return the messages that have the words of a term, with anything where it varies."""
    parts = term.split(VARIES)
    longest = max(parts, key=len)
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    return [message for message in messages if longest in message and pattern.search(message)]


def test_every_finding_has_an_entry():
    findings = [*(words for *_, words in SAID), *WHY_IT_STOPPED.values()]
    have_one = {found for term in TERMS for found in holders(term, findings)}
    assert not set(findings) - have_one


def test_every_entry_is_something_that_emjax_says():
    printed = (ROOT / "tests" / "errors_as_printed.txt").read_text().split("\n\n")
    said = [*(words for *_, words in SAID), *WHY_IT_STOPPED.values(), *printed, *strings()]
    assert not [term for term in TERMS if not holders(term, said)]
