"""What has started this process, and what it wants of it: systemd and others that manage services.

Knows neither applications nor HTTP. A supervisor imports it, so it is light.
"""
