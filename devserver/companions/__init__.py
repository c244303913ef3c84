"""Programs that run beside the server: when they are started and ended, and what they print.

`roster` decides, `lines` makes lines of what is printed, and `keeper` acts. Knows neither children nor
generations, but hears of them by the events that the server writes.
"""
