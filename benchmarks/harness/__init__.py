"""What the benchmarks share: processes and environments, contests, corpora, models, profiles, tables and reports.

May import trivec and trivec_export, none of the commands above it; serve and engines, which run in a peer's
environment, nothing but each other.
"""
