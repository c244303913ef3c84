"""The project: settings, addresses, and the two callables that a server looks for."""
