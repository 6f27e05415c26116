"""SQLAlchemy: run a job on a connection of an engine, in the transaction of the caller's other statements."""

from __future__ import annotations

import os
import sys

import sqlalchemy as sa

import portl

engine = sa.create_engine(
    sa.URL.create(
        "postgresql+psycopg",  # portl takes connections of psycopg 3
        host=os.environ["DEST_HOST"],
        port=int(os.environ["DEST_PORT"]),
        database=os.environ["DEST_DATABASE"],
        username=os.environ["DEST_USER"],
        password=os.environ["DEST_PASSWORD"],
    )
)
metadata = sa.MetaData()
users = sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
refreshes = sa.Table("refreshes", metadata, sa.Column("rows", sa.Integer))


def refresh(job: str) -> portl.Result:
    """Run the job between two statements of the application's: all three come together, or not at all."""
    with engine.begin() as connection:
        # psycopg begins a transaction with the first statement, and portl joins a transaction that has begun.
        connection.execute(sa.delete(refreshes))
        result = portl.migrate(job, destination=connection.connection.driver_connection)
        connection.execute(sa.insert(refreshes).values(rows=result.rows_read))
    return result


if __name__ == "__main__":
    done = refresh(sys.argv[1])
    with engine.connect() as reading:
        print(f"{done.summary()}; the first is {reading.scalar(sa.select(users.c.name).order_by(users.c.id).limit(1))}")
    engine.dispose()
