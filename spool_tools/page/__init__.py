"""A page on this machine: what is kept, where it goes, and three buttons.

    server   which requests are answered (Host, token, Origin); what a button does
    html     the page as text; pure
    page.js  draws the table of days as a plot, with uPlot (MIT, uPlot.LICENSE)

The page is served on 127.0.0.1 alone, on a random port, under an address that holds a
token. Nothing on it comes from elsewhere, and it reads without JavaScript.
"""

from __future__ import annotations

from spool_tools.page.server import serve as serve
