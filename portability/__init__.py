"""One exported file in every runtime: a sweep over networks, opsets and runtimes, and the table that it makes."""
