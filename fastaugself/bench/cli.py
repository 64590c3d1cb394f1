"""`fastaugself bench NAME`: benchmarks against other libraries."""

COMMANDS = {
    "augment": "fastaugself.bench.augment:augment_benchmark",
    "loader": "fastaugself.bench.loader:loader_benchmark",
    "disk": "fastaugself.bench.disk:disk_benchmark",
    "step": "fastaugself.bench.step:step_benchmark",
    "aware": "fastaugself.bench.aware:aware_benchmark",
    "e2e": "fastaugself.bench.e2e:e2e_benchmark",
    "scale": "fastaugself.bench.scale:scale_benchmark",
}
