"""A Flask application: a list of things to do, with a template and a style sheet.

    devserver sample_apps/flask_site/app.py --reload

Nothing says here that Flask speaks WSGI; the server finds out.
"""

from dataclasses import dataclass

from flask import Flask, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

app = Flask(__name__)


@dataclass
class Task:
    text: str
    done: bool = False


# Kept in the process, so a restart empties it: what has to outlive a save belongs into a file or a
# database, as in the Django sample.
tasks: list[Task] = []


@app.get("/")
def index() -> str:
    return render_template("index.html", tasks=tasks)


@app.post("/")
def add() -> Response:
    text = request.form.get("text", "").strip()
    if not text:
        abort(400, "A task needs a text.")
    tasks.append(Task(text))
    # A redirect, so that reloading the page does not post the form a second time.
    return redirect(url_for("index"), 303)


@app.post("/<int:number>/toggle")
def toggle(number: int) -> Response:
    if number >= len(tasks):
        abort(404)
    tasks[number].done = not tasks[number].done
    return redirect(url_for("index"), 303)
