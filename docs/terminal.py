"""Take pictures of a plan and of a run in a terminal, as SVG, from a real run: ``python docs/terminal.py``.

A server is started as ``portl demo`` does, a table of made-up customers is moved with the command line, and rich draws
what it printed. What differs from run to run, ports and times, is replaced by fixed values, so that the pictures change
only when what portl prints does; a test compares them.
"""

from __future__ import annotations

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
#: What the pictures show instead of what differs from run to run.
FIXED = (
    (r"127\.0\.0\.1:\d+", "localhost:5432"),
    (r"in \d+\.\d\d s", "in 0.21 s"),
    (r"[\d,]+ rows/s", "412,300 rows/s"),
)
THEME = TerminalTheme(
    (24, 26, 31),
    (220, 223, 228),
    [(40, 44, 52), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (220, 223, 228)],
    [(92, 99, 112), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194),
     (255, 255, 255)],
)  # fmt: skip
CUSTOMERS = """
CREATE TABLE customers (
    id bigint PRIMARY KEY, name varchar(40) NOT NULL, tags text[], since date, credit numeric(10,2)
);
INSERT INTO customers
SELECT g, 'Customer ' || g, ARRAY['shop', 'since ' || 2000 + g % 24], date '2000-01-01' + g % 9000, g % 700 + 0.5
  FROM generate_series(1, 86000) AS g;
ANALYZE customers;
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
    done = subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    text = done.stdout
    for pattern, fixed in FIXED:
        text = re.sub(pattern, fixed, text)
    return text


def picture(command: str, text: str) -> str:
    """Return the SVG of a command and what it printed. Fonts are the reader's own: none is fetched."""
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
            with psycopg.connect(f"{dsn} dbname=shop") as connection:
                connection.execute(CUSTOMERS)
            keys = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
            (folder / "job.yaml").write_text(JOB.format(**keys), encoding="utf-8")
            plan = printed("run", "job.yaml", "--dry-run", folder=folder)
            run = printed("run", "job.yaml", folder=folder)
    return {
        "terminal-plan.svg": picture("portl run job.yaml --dry-run", plan),
        "terminal-run.svg": picture("portl run job.yaml", run),
    }


def texts(svg: str) -> list[str]:
    """Return the texts of a picture."""
    return re.findall(r"<text[^>]*>(.*?)</text>", svg)


if __name__ == "__main__":
    for file, svg in pictures().items():
        (FOLDER / file).write_text(svg, encoding="utf-8")
