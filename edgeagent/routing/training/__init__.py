"""Training and evaluation of learned scores, with numpy: for `edgeagent route`, never in the daemon."""
