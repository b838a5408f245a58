# Precision and book-keeping; docs/configuration.md lists every field.
amp = 'auto'
channels_last = True
log_interval = 50
checkpoint_interval = 10
seed = 0
