"""Django: fill a model's table and write down that it was filled, in one transaction of Django's.

``python examples/django_app.py job.yaml``, with the destination's database in the environment.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.db import connection, models, transaction

import portl

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["DEST_HOST"],
            "PORT": os.environ["DEST_PORT"],
            "NAME": os.environ["DEST_DATABASE"],
            "USER": os.environ["DEST_USER"],
            "PASSWORD": os.environ["DEST_PASSWORD"],
        }
    }
)
django.setup()


class User(models.Model):
    """A row that the job brings."""

    name = models.TextField()

    class Meta:
        """Where the model lives."""

        app_label = "shop"
        db_table = "users"


class Refresh(models.Model):
    """A line of the application's own: when the users were brought, and how many."""

    rows = models.IntegerField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        """Where the model lives."""

        app_label = "shop"
        db_table = "refreshes"


def refresh(job: str) -> portl.Result:
    """Run the job inside a transaction of Django's: its rows and the line about them come together, or not at all."""
    with transaction.atomic():
        # Django begins a transaction with the first statement, and portl joins a transaction that has begun.
        line = Refresh.objects.create(rows=0)
        result = portl.migrate(job, destination=connection.connection)
        line.rows = result.rows_read
        line.save()
    return result


if __name__ == "__main__":
    done = refresh(sys.argv[1])
    print(f"{done.summary()}; the first is {User.objects.order_by('id')[0].name}")
