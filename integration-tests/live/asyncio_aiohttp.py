"""One event loop in Python: aiohttp as server and client, its pool as it comes (100 connections).

usage: asyncio_aiohttp.py PORT STOCK PRICE SHIP REDIS
"""

import asyncio
import sys

import aiohttp
from aiohttp import web

PORT, STOCK, PRICE, SHIP, REDIS = map(int, sys.argv[1:6])
idle = []


async def post(request, port, path, body):
    async with request.app["client"].post(f"http://127.0.0.1:{port}{path}", data=body) as response:
        await response.read()


async def redis_get(key):
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", REDIS)
    writer.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
    if await reader.readuntil(b"\r\n") != b"$-1\r\n":
        raise ConnectionError("redis says something else than nil")
    idle.append((reader, writer))


async def serve(request):
    body = await request.read()
    await post(request, STOCK, "/stock", body)
    await asyncio.gather(post(request, PRICE, "/price", body), redis_get(b"key:" + body))
    if int(body) % 2 == 0:
        await post(request, SHIP, "/ship", body)
    return web.Response(text="ok\n")


async def client(app):
    async with aiohttp.ClientSession() as session:
        app["client"] = session
        yield


app = web.Application()
app.cleanup_ctx.append(client)
app.router.add_post("/", serve)
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)
