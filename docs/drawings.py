"""Draw the Mermaid blocks of the pages as SVG when the site is built: a hook of MkDocs.

A theme draws them in the reader's browser, by a script that it fetches from a network. Here Mermaid itself runs when
the site is built, in a JavaScript interpreter that pip installs (mermaid-render), and the page holds a picture.
"""

from __future__ import annotations

import html
import re
from typing import Any

from mermaid_render import mermaid_to_svg

_BLOCK = re.compile(r'<pre class="mermaid"><code>(.*?)</code></pre>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace each block by its drawing. Raises what Mermaid says of one that cannot be drawn: the build fails."""
    return _BLOCK.sub(lambda match: drawing(html.unescape(match[1])), content)


def drawing(source: str) -> str:
    """Return the SVG of a block, in a figure that scales with the page."""
    found = mermaid_to_svg(source)
    text = found.decode() if isinstance(found, bytes) else found
    return f'<figure class="drawing">{text[text.index("<svg") :]}</figure>'
