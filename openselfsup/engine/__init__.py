"""The edge to mmengine: config, runner, hooks, optimisers, schedules, launchers."""
