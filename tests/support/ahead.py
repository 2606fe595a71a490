"""Where the configuration is ahead of the published run. All are empty after the next one."""

NEW = {"owl-as-released", "dsnot-improving", "elsa-as-released", "patch-tile-as-released"}
NEW |= {"admm+leap-tokens", "alps+leap-tokens", "leap-half-tokens+recover"}
NEW |= {"leap-cold-start", "leap-no-annealing", "leap-50-steps", "leap-125-steps"}
NEW |= {"leap-cold-start-50-steps", "leap-cold-start-125-steps"}
NEW |= {"leap-control", "admm-control", "leap-fact-free", "admm-fact-free"}
"""Methods of the published grids that the run does not have yet."""
GROWN = {"elsa", "wanda+recover", "admm+recover"}
"""Methods that have more cells than in the run."""
CHANGED = {"dsnot-as-released", "maskllm-as-released", "patch-joint-as-released"}
CHANGED |= {"wanda+optima-as-released"}
"""Methods that change something else than they did in the run."""
REWORDED = {"magnitude-2-4", "wanda-2-4", "sparsegpt-2-4", "thanos-2-4", "admm-2-4"}
REWORDED |= {"ria-2-4", "dsnot-2-4", "alps-2-4"}
REWORDED |= {"magnitude-as-released", "wanda-as-released", "wanda-shifted"}
REWORDED |= {"sparsegpt-as-released", "sparsegpt-blocks-of-32", "thanos-as-released"}
REWORDED |= {"admm-as-released", "ria-as-released", "alps-as-released", "elsa-euclidean"}
REWORDED |= {"wanda+recover", "admm+recover", "leap+recover", "wanda+recover-lora"}
REWORDED |= {"leap-noise-per-pass", "leap-late-schedules", "leap-grouped", "leap-low-memory"}
REWORDED |= {"leap-quartered-loss", "leap-one-gumbel", "leap-l1", "leap-threshold"}
REWORDED |= {"leap-half-batch", "leap-layer", "leap-from-admm", "leap-cosine"}
REWORDED |= {"patch-tile-threshold"}
"""Methods whose label or `changes` has other words than in the run, for the same change."""
PAIRED_BY_SEED = True
"""In its tables a method that ran once is compared with the same seed of the other, not with all of its seeds."""
