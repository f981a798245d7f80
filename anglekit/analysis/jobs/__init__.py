"""An analysis or an extraction as a job: shared, stopped and resumed, split and merged, its result saved whole."""
