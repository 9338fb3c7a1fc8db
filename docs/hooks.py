"""Hook of the site's builder: links that leave `docs/` lead to the repository, or become plain text.

Pages link to source files by relative paths, which GitHub resolves. The site has no such files: where `repo_url` is
set, the link goes there, else its text stays.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Rewrites the links of one page."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def rewritten(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match["target"]))
        if path.startswith("docs/"):
            return match[0]
        if not config.repo_url:
            return match["text"]
        return f"[{match['text']}]({config.repo_url.rstrip('/')}/blob/main/{path}{match['anchor'] or ''})"

    return LINK.sub(rewritten, markdown)
