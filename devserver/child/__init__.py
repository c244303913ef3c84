"""The process that a supervisor has started: it loads and serves the application, or serves the error page.

How the supervisor sees it stands in `devserver.reload.child`; the words between both, in
`devserver.reload.protocol`.
"""
