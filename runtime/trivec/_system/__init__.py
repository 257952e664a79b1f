"""The machine: home, threads, driver, files that appear whole.

May import errors alone.
"""
