"""The shell of the analysis: checkpoints and a probe in, a Geometry out.

`preparation` checks, tokenises and says in an `AnalysisSpec` what is looked at; `recorders` give the states of a batch;
`running_measurement` adds them up to a `Measurement`; `tables` and `sample_tables` make the Geometry of it. `analyze`
leads from one to the next; `job`, `unfinished` and `shards` share that among processes, runs and machines.
"""
