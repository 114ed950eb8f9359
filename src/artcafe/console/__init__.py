"""The files of the web console, built from `console/` by `npm run build`."""
