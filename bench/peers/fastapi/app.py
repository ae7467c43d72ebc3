"""FastAPI: an `async` path that runs in place (a plain `def` path goes through a pool of threads, which was slower here), a checked body, orjson for the answer."""

import os

import orjson
import session
from fastapi import FastAPI, Response
from pydantic import BaseModel

model = session.model()
app = FastAPI()


class Rows(BaseModel):
    x: list[list[float]]


class Text(BaseModel):
    text: str


Body = Text if os.environ.get("BENCH_KIND") == "text" else Rows


@app.post("/predict")
async def predict(body: Body):
    answer = model.run_one(model.read(body.model_dump()))
    return Response(orjson.dumps({"y": answer}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
