"""An HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from collections.abc import Iterable
from html import escape


def html_page(title: str, body: str) -> str:
    """Return a whole page around `body`, which is HTML already; the title is text."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def table(rows: Iterable[str], *, head: str = "") -> str:
    """Return a table that scrolls sideways if it is too wide; rows and head are HTML already."""
    top = f"<thead>{head}</thead>" if head else ""
    return f"<div class=scroll><table>{top}<tbody>{''.join(rows)}</tbody></table></div>"


def table_row(name: str, cells: Iterable[str]) -> str:
    """Return a row with its name as heading; name and cells are HTML already."""
    return f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


_CSS = """
:root { color-scheme: light; --ink: #0f172a; --soft: #64748b; --line: #e2e8f0; --card: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f8fafc; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; line-height: 1.2; letter-spacing: -.015em; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: .95rem; }
.kicker { margin: 0 0 .4rem; color: var(--soft); font-size: .8rem; text-transform: uppercase;
  letter-spacing: .08em; }
header p:last-child, .note, footer, small, caption small { color: var(--soft); }
.alarm { border-left: 4px solid #c2410c; background: #fff7ed; padding: .8rem 1rem;
  border-radius: 4px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem;
  margin: 1.5rem 0 .5rem; }
.tiles div, figure, table { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.tiles div { padding: .8rem 1rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 1rem; }
figure { margin: 0; padding: 1rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
figcaption { margin-top: .4rem; text-align: center; font-weight: 600; overflow-wrap: anywhere; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums;
  overflow: hidden; }
th, td { padding: .4rem .8rem; text-align: left; border-top: 1px solid var(--line);
  font-weight: 400; }
tr:first-child > * { border-top: 0; }
thead th, thead td { font-weight: 650; background: #f1f5f9; }
tbody th { color: #334155; }
.scroll { overflow-x: auto; }
td:first-child { overflow-wrap: anywhere; }
.matrices { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 1rem; }
.matrix { width: 100%; }
.matrix caption { padding: .5rem; font-weight: 650; }
.matrix td { text-align: center; }
.matrix th { font-size: .8rem; color: var(--soft); }
code { font-size: .9em; }
footer { margin-top: 3rem; font-size: .85rem; }
@media print { body { background: #fff; } figure, table { break-inside: avoid; } }
"""
