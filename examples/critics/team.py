"""A researcher, a writer and a critic: tasks of a queue, direct messages between the three, and an end to their discussion."""

import asyncio

from artcafe import Agent, Message, errors

TOPICS = ["coffee", "tea"]
GOOD_ENOUGH = 2  # drafts, until the critic is content; your agents ask a model instead


editor, researcher, writer, critic = [Agent(agent=name, key=name) for name in ("editor", "researcher", "writer", "critic")]
essays = asyncio.Queue[str]()


@researcher.on("topics")  # a queue: several researchers would share it
async def research(message: Message) -> None:
    """Hand the notes about a topic to the writer."""
    notes = {"topic": message.data, "sources": ["Ukers", "Lu Yu"]}
    await researcher.send("writer", {"notes": notes, "draft": 0, "remark": None})


@writer.on_direct
async def write(message: Message) -> None:
    """Write the next draft for the critic, or finish."""
    task = message.data
    if task.get("approved"):
        await essays.put(task["text"])
        return
    draft = task["draft"] + 1
    text = f"{task['notes']['topic']}, draft {draft}, after {', '.join(task['notes']['sources'])}"
    try:
        await writer.send("critic", {**task, "draft": draft, "text": text})
    except errors.LoopStopped:  # they would discuss for ever: take what there is
        await essays.put(text)


@critic.on_direct
async def judge(message: Message) -> None:
    """Approve a draft, or send it back with a remark."""
    task = message.data
    approved = task["draft"] >= GOOD_ENOUGH
    await message.reply({**task, "approved": approved, "remark": None if approved else "Say more about the taste."})


async def main() -> None:
    """Publish the topics, and print the essays."""
    async with researcher, writer, critic, editor:
        for topic in TOPICS:
            await editor.publish("topics", topic)
        for _ in TOPICS:
            print(await essays.get())


asyncio.run(main())
