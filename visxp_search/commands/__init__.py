"""The commands of `visxp`, a file a group. Imports of parts stand inside the commands, so that help is instant."""
