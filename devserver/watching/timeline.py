"""What the application read, in order, and whether it would read the same now.

Each entry is a question that was asked of the file system and its answer. The running number of an
entry is its *sequence number*, `seq`. A change matters if it changes an answer. What was noticed too
late to know when it was asked counts as asked before everything else.

Watchers give hints; this module decides, by content. A file is known by (mtime_ns, ctime_ns,
size, inode), and if one of these differs by a digest of its bytes, so that a `touch` or a save
without a change is nothing. Equal fingerprints prove nothing about a file that is *racy*: two
saves within one grain of the file system's clock leave the same stamps. So a racy file is always
read, and so is one that a hint names.

What the application itself writes is its *own*: it changes no answer, neither about the path nor
about the names in its folder. A path stays own until the next generation: who wrote the bytes that
are there now cannot be told (inotify names no process), and a restart too many, at every request
that writes, is worse than one too few.

Knows neither processes nor watchers nor what follows from a change.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Callable, Container, Iterable, Iterator

from devserver.watching.answers import (
    ASK,
    OWN,
    Entry,
    Question,
    culprit,
    file_entry,
    fingerprint_at,
    identity_at,
    is_racy,
    list_entry,
    lists_otherwise,
    mode_of,
    name_of,
    places_of,
    read_entry,
    tree_entry,
    watched_for,
)
from devserver.watching.rules import Counts, Rules

__all__ = ["ASK", "OWN", "Entry", "Question", "Timeline", "read_entry", "tree_entry"]


class Timeline:
    """The watch set: entries in order, found by the paths that a watcher hints."""

    def __init__(
        self,
        rules: Rules,
        before: Timeline | None = None,
        *,
        lazy: bool = False,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        Args:
            rules: which paths never count, and which count whether they were read or not.
            before: the timeline of an earlier generation, whose digests need not be taken again.
            lazy: digests that the entries lack are left to `digest`; until then a `touch` is a change.
            clock: nanoseconds since the epoch, as file systems count them.
        """
        self._rules = rules
        self._lazy = lazy
        self._clock = clock
        self._digests: dict[str, Entry] = before._digests if before is not None else {}
        same = before is not None and before._rules is rules
        self._silent: dict[str, bool] = before._silent if before is not None and same else {}
        self._entries: dict[tuple[Question, str], Entry] = {}
        self._by_path: dict[str, list[Entry]] = {}
        self._lists: dict[str, Entry] = {}
        self._folders: dict[str, list[Entry]] = {}
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._next = self._first = 0
        self._examined: dict[str, Entry] = {}
        self._own: set[str] = set()
        self._accepted: set[str] = set()
        self._expected: set[str] = set()
        self._touched, self._awaited = set[str](), dict[str, int]()
        self._suspects: list[Entry] = []
        self._undigested: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    @property
    def seq(self) -> int:
        """The sequence number of the entry that comes next."""
        return self._next

    @property
    def suspicious(self) -> bool:
        """Whether answers were added that have not been held against the file system yet."""
        return bool(self._suspects)

    def add(self, entry: Entry) -> list[str]:
        """Append an entry, unless its question was asked before. Returns the paths to be watched.

        The answer was given some time ago; whether it still holds is asked by the next `changes`,
        after the paths are watched, so that nothing is missed.
        """
        if entry.answer == OWN:
            self._disown(entry.path)
            return []
        known = self._entries.get((entry.kind, entry.path))
        if known is not None:  # what was read, written and read again is another for certain
            return [] if entry.own else self._answer_again(known, entry)
        if entry.kind is Question.PATH and entry.path in self._own:
            return []
        self._append(entry)
        more = self.add(name_of(entry)) if entry.names is not None else []
        return watched_for(entry) + more

    def renew(self, entry: Entry) -> list[str]:
        """Like `add`, but of two answers the later counts: it is that of a process that went on from here."""
        known = self._entries.get((entry.kind, entry.path))
        if (
            known is None
            or entry.kind is not Question.FILE
            or entry.own
            or OWN in (known.answer, entry.answer)
        ):
            return self.add(entry)
        known.answer, known.fingerprint = entry.answer, entry.fingerprint
        self._doubt(known)
        return []

    def believe(self) -> None:
        """Take what was added for what a look would find now."""
        self._suspects = []

    def accept(self, path: str) -> None:
        """Take what is at a path now for what was read: somebody has dealt with its change."""
        listing = self._lists.get(os.path.dirname(path))
        for entry in (*self._by_path.get(path, ()), *([listing] if listing is not None else ())):
            if entry.answer != OWN and entry.kind is not Question.TREE:
                now = ASK[entry.kind](entry.path)
                entry.answer, entry.fingerprint = now.answer, now.fingerprint
                self._accepted.add(entry.path)
        if path not in self._by_path and self._always(path):
            self.add(read_entry(path))

    def _answer_again(self, known: Entry, entry: Entry) -> list[str]:
        if known.kind is Question.PATH and entry.fingerprint is not None:
            known.fingerprint = known.fingerprint or entry.fingerprint
            self._examined[known.path] = known
        if known.kind is not Question.FILE or (known.answer != OWN and known.path not in self._expected):
            return []
        # The application wrote a module and then executed it, or it read what counts without being
        # read: what it has read is what counts.
        self._expected.discard(known.path)
        known.seq, self._next = self._next, self._next + 1
        known.answer, known.fingerprint = entry.answer, entry.fingerprint
        self._doubt(known)
        return self.add(name_of(entry)) if entry.names is not None else []

    def expect(self, path: str) -> None:
        """Note a file that counts without being read, so that a `touch` of it is known to be none."""
        if (Question.FILE, path) not in self._entries and self._always(path):
            self._expected.add(path)
            self._append(file_entry(path, self._clock()))

    def _disown(self, path: str) -> None:
        """The application writes there: what was known of it is no reason to restart any more."""
        self._own.add(path)
        for entry in self._by_path.get(path, ()):
            if entry.kind is not Question.LIST and not entry.own:
                entry.answer = OWN

    def _append(self, entry: Entry) -> None:
        if entry.late:
            entry.seq = self._first = self._first - 1
        elif entry.kind is Question.FILE and entry.path in self._awaited:
            entry.seq = self._awaited.pop(entry.path)
        else:
            entry.seq, self._next = self._next, self._next + 1
        self._entries[entry.kind, entry.path] = entry
        self._doubt(entry)
        if entry.kind is Question.PATH and entry.fingerprint is not None:
            self._examined[entry.path] = entry
        for path in places_of(entry):
            self._by_path.setdefault(path, []).append(entry)
        if entry.kind is Question.LIST:
            self._lists[entry.path] = entry
        folder = os.path.dirname(entry.path)
        self._folders.setdefault(folder, []).append(entry)
        while folder not in self._identities:
            self._identities[folder] = identity_at(folder)
            folder = os.path.dirname(folder)

    def _doubt(self, entry: Entry) -> None:
        """Have an answer held against the file system, and given a digest if it needs one."""
        self._suspects.append(entry)
        if entry.kind is Question.FILE and entry.answer is None and self._lazy:
            self._undigested.append(entry)

    def undigested(self, most: float = math.inf) -> Entry | None:
        """An entry for `digest`, of a file of at most so many bytes; each is given once, then None."""
        for at in reversed(range(len(self._undigested))):
            entry = self._undigested[at]
            if entry.answer is not None or entry.fingerprint is None or entry.fingerprint[2] <= most:
                del self._undigested[at]
                if entry.answer is None:
                    return entry
        return None

    def digest(self, entry: Entry, fresh: Entry) -> None:
        """Complete an entry by what `read_entry` found, if that is what its fingerprint means."""
        if entry.answer is None and fresh.fingerprint == entry.fingerprint:
            entry.answer = fresh.answer

    def changes(self, hints: Iterable[str] | None, found: Iterable[str] = ()) -> list[str]:
        """The paths whose change is another answer, in the order in which they were read.

        Args:
            hints: touched paths; None for "look at everything".
            found: paths that may be new, among others: one that counts without being read is a change.
        """
        others = {entry.seq: entry for entry in self._suspects}
        named: dict[int, Entry] = {}
        if hints is None:
            others.update((entry.seq, entry) for entry in self._entries.values())
        hints = [] if hints is None else list(hints)
        for hint in hints:
            named.update((entry.seq, entry) for entry in self._by_path.get(hint, ()))
            others.update((entry.seq, entry) for entry in self._around(hint))
        self._suspects = []
        asked = sorted({**others, **named}.items())
        changed = [self._change(entry, named=seq in named) for seq, entry in asked]
        if self._rules.trees():
            unread = (path for path in (*hints, *found) if (Question.FILE, path) not in self._entries)
            changed += filter(self._always, unread)
        return list(dict.fromkeys(filter(None, changed)))

    def outdated(self, hints: Iterable[str] | None) -> list[Entry]:
        """The entries whose answers a fresh process would find to be others, in order.

        Args: hints: the paths that have changed; None where that is not known, then all are asked. What the
            application has written itself since, or has dealt with, is not among them, nor what by the
            rules never counts, but a fresh process would read that.
        """
        if hints is None:
            everything = sorted(self, key=lambda entry: entry.seq)
            return [entry for entry in everything if self._is_outdated(entry, named=False)]
        asked: dict[int, Entry] = {}
        for hint in (*hints, *self._own, *self._accepted):
            asked.update((entry.seq, entry) for entry in self._by_path.get(hint, ()))
            asked.update((entry.seq, entry) for entry in self._around(hint))
        asked.update((entry.seq, entry) for entry in self._examined.values())
        asked.update((entry.seq, entry) for entry in self if entry.own or self._is_silent(entry))
        return [entry for _, entry in sorted(asked.items()) if self._is_outdated(entry)]

    def _is_silent(self, entry: Entry) -> bool:
        """Whether what would change an answer may be what never counts. Asked of each, at each restart."""
        path = entry.path + ".py" if entry.kind is Question.NAME and self._rules.excludes else entry.path
        known = self._silent.get(path)
        if known is None:
            known = self._silent[path] = self._rules.verdict(path).kind is Counts.NEVER
        return known or entry.kind is Question.LIST

    def _is_outdated(self, entry: Entry, *, named: bool = True) -> bool:
        if entry.answer == OWN or entry.path in self._accepted:
            return True
        if entry.path in self._examined and entry.kind is Question.PATH:
            return fingerprint_at(entry.path) != entry.fingerprint
        if entry.kind is Question.FILE:
            return self._file_differs(entry, named)
        if entry.kind is Question.LIST and self._is_as_listed(entry):
            return False
        return entry.kind in ASK and ASK[entry.kind](entry.path).answer != entry.answer

    def knows(self, path: str) -> bool:
        """Whether an answer depends on what is at a path."""
        return path in self._by_path or os.path.dirname(path) in self._lists

    def begin_like(self, other: Timeline, seq: int, without: Container[str]) -> list[str]:
        """Take over what another timeline had before a sequence number. Returns the paths to be watched.

        Args: without: files that are read again; each keeps its number, at which it was read first.
        """
        paths = []
        for entry in (each for each in other if each.seq < seq):
            if entry.kind is Question.FILE and entry.path in without:
                self._awaited[entry.path] = entry.seq
            else:
                self._next = entry.seq
                self._own |= {entry.path} if entry.own else set()
                self._append(entry)
                paths += watched_for(entry)
        self._next, self._touched = seq, set(other._touched)
        self._expected = {path for path in other._expected if (Question.FILE, path) in self._entries}
        return paths

    def touched(self, seq: int, without: Container[str]) -> list[Entry]:
        """The files, read before a sequence number, that have other stamps since, and the same bytes.

        Args: without: files that are read again, for their bytes may be others by now.
        """
        before = (each for each in self if each.kind is Question.FILE and each.seq < seq)
        return [each for each in before if each.path in self._touched and each.path not in without]

    def _always(self, path: str) -> bool:
        """Whether a file that nobody read counts nevertheless."""
        if path in self._own or self._rules.verdict(path).kind is not Counts.ALWAYS:
            return False
        return stat.S_ISREG(mode_of(path))

    def _around(self, hint: str) -> Iterator[Entry]:
        """The listing that a hint changes, and what is below if it is another folder now.

        Folders are told apart by their inode: a hint for a folder whose names have changed must
        not have all be looked at that is below. What came or went there is hinted by itself.
        """
        listing = self._lists.get(os.path.dirname(hint))
        if listing is not None and lists_otherwise(listing, hint):
            yield listing
        if hint not in self._identities or not self._is_another(hint):
            return
        yield from self._folders.get(hint, ())
        below = os.path.join(hint, "")
        for folder, entries in self._folders.items():
            if folder.startswith(below) and self._is_another(folder):
                yield from entries

    def _is_another(self, folder: str) -> bool:
        """Whether a folder is not the one that it was when last asked about; noted."""
        now, before = identity_at(folder), self._identities[folder]
        self._identities[folder] = now
        return now is None or now != before

    def _change(self, entry: Entry, named: bool) -> str:
        """The path whose change is another answer; "" if it is the same, or does not count."""
        if entry.answer == OWN:
            return ""
        if entry.own:
            self._file_differs(entry, named)  # for its digest: it matters where to go on from
            path = ""
        elif entry.kind is Question.LIST:
            path = self._list_change(entry)
        elif entry.kind is Question.FILE:
            path = entry.path if self._file_differs(entry, named) else ""
        else:
            now = ASK[entry.kind](entry.path).answer
            path = culprit(entry, now or "") if now != entry.answer else ""
        return path if path and self._rules.verdict(path).kind is not Counts.NEVER else ""

    def _is_as_listed(self, entry: Entry) -> bool:
        """Whether a folder's stamps alone say that its names are the same."""
        now = fingerprint_at(entry.path)
        return now == entry.fingerprint and (now is None or not is_racy(now, self._clock()))

    def _list_change(self, entry: Entry) -> str:
        if self._is_as_listed(entry):
            return ""
        fresh = list_entry(entry.path)
        before, after = entry.answer or "", fresh.answer or ""
        if before == after:
            entry.fingerprint = fresh.fingerprint
            return ""
        if not (before[:1] == after[:1] == "/"):  # no folder, or too many names to keep
            own = before and after and any(os.path.dirname(path) == entry.path for path in self._own)
            return "" if own else entry.path
        names = set(before.split("/")) ^ set(after.split("/"))
        paths = sorted(os.path.join(entry.path, name) for name in names if name)
        return next((path for path in paths if self._means(path)), "")

    def _means(self, path: str) -> bool:
        """Whether a name that came or went says anything."""
        return path not in self._own and self._rules.verdict(path).kind is not Counts.NEVER

    def _file_differs(self, entry: Entry, named: bool) -> bool:
        now = fingerprint_at(entry.path)
        if now is None:
            return entry.answer != ""
        trusted = not named and not is_racy(now, self._clock())
        if trusted and now == entry.fingerprint and (entry.answer is not None or self._lazy):
            return False
        then = self._digests.get(entry.path)
        if entry.answer is None and then is not None and then.fingerprint == entry.fingerprint:
            entry.answer = then.answer
        fresh = then if trusted and then is not None and then.fingerprint == now else self._read(entry.path)
        self.digest(entry, fresh)  # it is taken by who watches, not by who reads
        if fresh.answer != entry.answer:
            return True
        self._touched |= {entry.path} if entry.fingerprint != fresh.fingerprint else set()
        entry.fingerprint = fresh.fingerprint
        return False

    def _read(self, path: str) -> Entry:
        """A file's digest, remembered for later generations if its fingerprint can be trusted then."""
        fresh = read_entry(path)
        if fresh.fingerprint is not None and not is_racy(fresh.fingerprint, self._clock()):
            self._digests[path] = fresh
        else:
            self._digests.pop(path, None)
        return fresh
