"""Ask the researcher and publish its answer, in a program without asyncio. The agent is in ARTCAFE_… variables."""

from artcafe.sync import Agent

with Agent() as agent:
    papers = agent.ask("researcher", {"question": "How many papers?"})
    receipt = agent.publish("news", papers)
    print(f"published as {receipt.message_id}: {papers}")
    message = next(agent.messages())
    print(f"from {message.sender}: {message.data}")
    message.ack()
