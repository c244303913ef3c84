"""What is kept."""

from django.db import models


class Entry(models.Model):
    """One line in the guest book."""

    name = models.CharField(max_length=60)
    message = models.CharField(max_length=280)
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-written", "-pk")  # the key decides between two of the same instant

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"
