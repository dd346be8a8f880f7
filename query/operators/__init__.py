"""One verb a file: the steps between a plan and an answer, each a function of its inputs."""
