"""Where the configuration is ahead of the published run. All are empty after the next one."""

NEW = {"owl-as-released", "dsnot-improving", "elsa-as-released", "patch-tile-as-released"}
NEW |= {"admm+leap-tokens", "alps+leap-tokens", "leap-half-tokens+recover"}
NEW |= {"leap-cold-start", "leap-no-annealing", "leap-50-steps", "leap-125-steps"}
NEW |= {"leap-cold-start-50-steps", "leap-cold-start-125-steps"}
NEW |= {"leap-control", "admm-control", "leap-fact-free", "admm-fact-free"}
"""Lines of the published grids that the run has not got yet."""
GROWN = {"elsa", "wanda+recover", "admm+recover"}
"""Lines that have more cells than in it."""
CHANGED = {"dsnot-as-released", "maskllm-as-released", "patch-joint-as-released", "wanda+optima-as-released"}
"""Lines that change something else than they did in it."""
PAIRED_BY_SEED = True
"""In its tables a method that ran once is compared with the same seed of the other, not with all of its seeds."""
