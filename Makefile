PY := .venv/bin/python
.venv/stamp: requirements.lock
	uv venv -q --clear .venv && uv pip install -q -p .venv -r requirements.lock && uv pip install -q -p .venv --no-deps --no-build-isolation -e . && touch $@
