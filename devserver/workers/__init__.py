"""Several processes that serve, and the arbiter that begins and replaces them.

`pool` decides, `arbiter` does it, `worker` is what a worker does. The arbiter holds the listeners and loads
no user code, so each worker begins as a fresh process does. It forks them, as it has neither threads nor an
event loop.
"""
