"""What holds for every page, and a text that would break one that does not escape it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img", "hr", "input", "col", "wbr", "source"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=y> $\\frac{$ \udcff"


class Page(HTMLParser):
    """Checks that every element ends where it should, and keeps what tests ask for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.ids, self.text = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def check(text):
    """What holds for every page."""
    assert text.startswith("<!DOCTYPE html>")
    assert text.encode("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert len(set(page.ids)) == len(page.ids)
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "action", "srcset"):
            assert value.startswith(("#", "data:image/jpeg;base64,"))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text
    assert page.words.count("Research use only.") == 2
    anchors = {v[1:] for n, v in page.attributes if n == "href" and v.startswith("#")}
    assert anchors <= set(page.ids)
    return page
