// A page that is an agent: it shows what it receives, acknowledges it, and sends what you type.
import { Agent } from "artcafe";

const login = async () => (await fetch("/login", { method: "POST" })).json();
const messages = document.querySelector("#messages");
const state = document.querySelector("#state");

function show(sender, data) {
	const line = document.createElement("li");
	const name = document.createElement("b");
	name.textContent = sender;
	line.append(name, typeof data === "string" ? data : JSON.stringify(data)); // as text: another agent wrote it
	messages.append(line);
	line.scrollIntoView();
}

const agent = await Agent.connect({
	url: (await login()).gateway,
	token: async () => (await login()).token, // for each connection; a token is valid for 15 minutes
	onState: (event) => (state.textContent = event.kind),
});
state.textContent = "connected";

document.querySelector("#send").addEventListener("submit", async (event) => {
	event.preventDefault();
	const { to, text } = event.target.elements;
	await agent.publish(to.value, text.value);
	show("you", text.value);
	text.value = "";
});

for await (const message of agent.messages()) {
	show(message.sender, message.data);
	message.ack();
	if (message.isDirect && message.data?.question === "Are you there?") await message.reply("Yes, in a browser.");
}
