"""The command line, one file a job.

May import everything below it; nothing imports it but __main__.
"""
