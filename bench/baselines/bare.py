"""The least that a FastAPI endpoint can do."""

from fastapi import FastAPI

from app.platform.resilience.drain import Drain

app = FastAPI()
app.state.drain = Drain()  # asked for by the worker that the service runs in


@app.get("/")
async def hello() -> dict[str, str]:
    return {"hello": "world"}
