"""Draw a plan and a run in a terminal as SVG, from a real run: ``python docs/terminal.py``.

A server is started as ``portl demo`` does, a made-up table is moved with the command line, and rich draws what it
printed, figures included. A test draws the pictures again and compares their text, ports and timings aside.
"""

from __future__ import annotations

import html
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from portl_postgres.demo.server import Server

FOLDER = Path(__file__).parent
COLUMNS = 86
#: What differs from run to run.
_VARYING = re.compile(r"(?<=:)\d{4,5}(?=/)|[\d.]+(?= s\b)|[\d,]+(?= rows/s)")
THEME = TerminalTheme(
    (24, 26, 31),
    (220, 223, 228),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (220, 223, 228)],
    [(92, 99, 112), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (255, 255, 255)],
)  # fmt: skip
CUSTOMERS = """
CREATE TABLE customers (id bigint PRIMARY KEY, name varchar(40) NOT NULL, tags text[], credit numeric(10,2));
INSERT INTO customers
SELECT g, (ARRAY['Ada', 'Edgar', 'Grace', 'Alan', 'Barbara'])[1 + g % 5] || ' No. ' || g,
       ARRAY['shop', 'since ' || 2000 + g % 24], g % 700 + 0.5
  FROM generate_series(1, 86000) AS g;
ANALYZE customers;
"""
#: What the destination holds: a table made earlier, with narrower names and a thousand old rows.
CLIENTS = """
CREATE TABLE clients (id bigint PRIMARY KEY, full_name varchar(30) NOT NULL, tags text[], credit numeric(10,2));
INSERT INTO clients SELECT g, 'unknown', NULL, 0 FROM generate_series(1, 1000) AS g;
"""
JOB = """
source: {{type: postgres, host: {host}, port: {port}, database: shop, username: {user}, password: {password},
          table: customers}}
destination: {{type: postgres, host: {host}, port: {port}, database: warehouse, username: {user}, password: {password},
               table: clients}}
schema_mapping: {{name: full_name}}
verify: checksum
"""


def printed(*arguments: str, folder: Path) -> str:
    """Return what the command line prints on a terminal, colours included."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    call = [sys.executable, "-m", "portl", *arguments]
    return subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def picture(command: str, text: str) -> str:
    """Return the SVG of a command and what it printed, in the reader's own fonts: none is fetched."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(text.rstrip()))
    found = console.export_svg(title="", theme=THEME, unique_id="portl", font_aspect_ratio=0.61)
    found = re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", found, flags=re.DOTALL)
    return found.replace("Fira Code", "ui-monospace")


def pictures() -> dict[str, str]:
    """Return the pictures by their file names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "server").mkdir(mode=0o755)
        with Server(folder / "server") as server:
            dsn = f"host={server.host} port={server.port} user={server.user} password={server.password}"
            with psycopg.connect(f"{dsn} dbname=postgres", autocommit=True) as connection:
                connection.execute("CREATE DATABASE shop")
                connection.execute("CREATE DATABASE warehouse")
            for database, tables in (("shop", CUSTOMERS), ("warehouse", CLIENTS)):
                with psycopg.connect(f"{dsn} dbname={database}") as connection:
                    connection.execute(tables)
            keys = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
            (folder / "customers.yaml").write_text(JOB.format(**keys), encoding="utf-8")
            plan = printed("run", "customers.yaml", "--dry-run", folder=folder)
            run = printed("run", "customers.yaml", folder=folder)
    return {
        "terminal-plan.svg": picture("portl run customers.yaml --dry-run", plan),
        "terminal-run.svg": picture("portl run customers.yaml", run),
    }


def texts(svg: str) -> list[str]:
    """Return the texts of a picture, without what differs from run to run."""
    found = (html.unescape(text).rstrip("\xa0") for text in re.findall(r"<text[^>]*>(.*?)</text>", svg))
    return [_VARYING.sub("N", text.replace("\xa0", " ")) for text in found]


if __name__ == "__main__":
    for file, svg in pictures().items():
        (FOLDER / file).write_text(svg, encoding="utf-8")
