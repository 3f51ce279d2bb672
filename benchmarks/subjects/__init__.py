"""One module a subject, with a function `subject(folder, device, *, quick)`."""
