"""`devserver trust` and `devserver untrust`: have this machine trust the local authority, or no more.

Asks before it changes anything, and says of each store what was done and what could not be. What `trust` has
done `untrust` takes back: it also removes the authority itself, so that a key that was trusted lies nowhere.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

from devserver.front.authority import ROOT, own
from devserver.front.folder import RECORD, has_mkcert, mkcert_folder, own_folder
from devserver.front.stores import Failed, Root, stores

Say = Callable[[str], None]
Ask = Callable[[str], bool]


def trust(say: Say, ask: Ask) -> bool:
    """Have the authority trusted. Returns whether all stores have it.

    Raises:
        devserver.errors.UsageError: there is no authority, and none can be made.
    """
    if has_mkcert():
        say(f"--https uses the authority of mkcert, in {mkcert_folder()}; mkcert -install has it trusted")
        return True
    root = _root()
    found = stores(os.path.expanduser("~"))
    say(f"The authority of this machine, {root.name}, is in {own_folder()}.")
    say("It can only vouch for localhost, private networks and names that are nobody's.")
    if not ask(f"Have it trusted by {', '.join(map(str, found))}?"):
        say("Nothing was changed.")
        return False
    done = []
    for store in found:
        try:
            store.install(root)
            done.append(str(store))
            say(f"done: {store}")
        except Failed as error:
            say(f"could not: {store}: {error}")
    if done:
        open(os.path.join(own_folder(), RECORD), "w").close()
    say("Browsers that are open have to be started again.")
    say(f"Python's requests and httpx have lists of their own: give them verify={root.path!r}.")
    return len(done) == len(found)


def untrust(say: Say, ask: Ask) -> bool:
    """Take all back, and remove the authority. Returns whether nothing is left.

    Raises:
        devserver.errors.UsageError: the authority cannot be read.
    """
    if not os.path.exists(os.path.join(own_folder(), ROOT)):
        if os.path.exists(own_folder()):  # certificates that mkcert's authority has signed
            shutil.rmtree(own_folder())
            say(f"removed: {own_folder()}")
        say("There is no authority of devserver's, and nothing to take back from browsers.")
        return True
    if not ask(f"Remove the authority in {own_folder()} from all stores, and delete it?"):
        say("Nothing was changed.")
        return False
    root, is_whole = _root(), True
    for store in stores(os.path.expanduser("~")):
        try:
            say(f"removed: {store}" if store.remove(root) else f"was not there: {store}")
        except Failed as error:
            is_whole = False
            say(f"could not: {store}: {error}")
    if not is_whole:
        say(f"The authority is left in {own_folder()}, so that this can be run again.")
        return False
    shutil.rmtree(own_folder())
    say(f"removed: {own_folder()}")
    return True


def _root() -> Root:
    from cryptography.hazmat.primitives import hashes  # a start without the extra is refused by `authority`

    authority = own(datetime.now(UTC))
    fingerprint = authority.root.fingerprint(hashes.SHA256()).hex()[:8]
    return Root(os.path.join(own_folder(), ROOT), f"devserver local authority {fingerprint}")
