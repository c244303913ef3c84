"""What is shown. The form is made from the model, so the lengths are said once."""

from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from guestbook.models import Entry


class EntryForm(ModelForm):
    class Meta:
        model = Entry
        fields = ("name", "message")


def index(request: HttpRequest) -> HttpResponse:
    """Show the latest entries and the form; take an entry by POST."""
    form = EntryForm(request.POST or None)
    if form.is_valid():
        form.save()
        return redirect("index")
    return render(request, "guestbook/index.html", {"form": form, "entries": Entry.objects.all()[:50]})
