"""A Django project in one file that enqueues: ``python examples/django_app.py runserver``.

python examples/django_app.py migrate
curl -X POST localhost:8000/users/ann
curl -X DELETE localhost:8000/users/ann
curl localhost:8000/queue

Jobs go through Django's own connection, so what is enqueued within ``atomic`` (or with
``ATOMIC_REQUESTS``) is committed or rolled back together with what the ORM wrote.
"""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from pgq_fast.db import SyncPsycopgDriver
from pgq_fast.queries import SyncQueries

if not settings.configured:
    options = conninfo_to_dict(os.environ.get("PGDSN", ""))
    settings.configure(
        ALLOWED_HOSTS=["localhost", "127.0.0.1"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": options.pop("dbname", os.environ.get("PGDATABASE", "")),
                "OPTIONS": options,
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
    )
    django.setup()

# These need the settings.
from django.contrib.auth.models import User
from django.core.management import execute_from_command_line
from django.db import IntegrityError, connection, transaction
from django.db.backends.signals import connection_created
from django.http import HttpRequest, HttpResponseNotAllowed, JsonResponse
from django.urls import path


def keep_jobs(connection: object, **_: object) -> None:
    """Make the queries when Django connects: within ``atomic`` it is too late for a driver."""
    connection.jobs = SyncQueries(SyncPsycopgDriver(connection.connection))  # type: ignore[attr-defined]


connection_created.connect(keep_jobs)


def jobs() -> SyncQueries:
    """Queries on the connection that Django gave to this thread."""
    connection.ensure_connection()
    queries: SyncQueries = connection.jobs
    return queries


def user(request: HttpRequest, name: str) -> JsonResponse:
    if request.method == "POST":
        return sign_up(name)
    if request.method == "DELETE":
        return leave(name)
    return HttpResponseNotAllowed(["POST", "DELETE"])


def sign_up(name: str) -> JsonResponse:
    try:
        with transaction.atomic():
            # Part of the transaction: if the name is taken, the job is gone as well.
            [job_id] = jobs().enqueue("greet", name.encode())
            User.objects.create_user(name)
    except IntegrityError:
        return JsonResponse({"error": f"{name} is taken"}, status=409)
    return JsonResponse({"job": job_id}, status=202)


def leave(name: str) -> JsonResponse:
    with transaction.atomic():
        User.objects.filter(username=name).delete()

        # After the commit, in a transaction of its own: an error here undoes nothing, but a process
        # that dies in between enqueues nothing either.
        def enqueue_report() -> None:
            jobs().enqueue("report", None, dedupe_key="report of leavers", on_conflict="skip")

        transaction.on_commit(enqueue_report)
    return JsonResponse({}, status=202)


def queue(request: HttpRequest) -> JsonResponse:
    return JsonResponse([row.model_dump() for row in jobs().queue_size()], safe=False)


urlpatterns = [path("users/<str:name>", user), path("queue", queue)]


if __name__ == "__main__":
    execute_from_command_line(sys.argv)
