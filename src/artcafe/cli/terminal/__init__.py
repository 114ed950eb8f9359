"""Input and output of commands: arguments, standard input, printed text, prompts and exit codes."""
