"""`scripts/bench NAME`: one module of this folder for each name."""

from __future__ import annotations

import importlib
import sys

NAMES = {
    "adapters": "LoRA adapters that change with each request, against each alone; the model untouched",
    "assistant": "one assistant request beside the same asked of a chat model; figures through the API",
    "engine": "the served path against a bare llama.cpp loop, prefixes, memory, start",
    "compare": "another version of edgeagent against this one: rates, memory, start",
    "peers": "llama-server of the same llama.cpp beside this: eight workloads, memory",
    "arrival": "a short request that arrives while a long prompt is computed, beside llama-server",
    "apart": "prompts beside running answers, in the cache of all and in a context of their own",
    "beside": "two threads that compute together, and two that each compute their own part",
    "streams": "answers in the cache of all and in streams of their own, by their length",
    "cells": "what idle cells of the KV cache cost each step, and what moving them costs",
    "steps": "what steps were expected to cost, against what they took",
    "simulate": "the engine on cost curves of devices: recorded arrivals, by policy",
    "policies": "five policies of scheduling on daemons and in the simulator, ranked by both",
    "bounds": "what decoding of one sequence reaches of memory and arithmetic, by model",
    "copying": "answers that copy their prompt, and others, with and without speculation",
    "intents": "own intents by `forge new`: accuracy and minutes beside a classifier on MiniLM",
    "intent-updates": "own intents after an update with 50 corrected texts: what is right, what is lost",
    "routing": "an assistant model before a chat model: what it keeps, what that costs, what separates texts",
    "scope": "texts out of scope against right calls that are lost, by signal: probability, neighbours",
    "embed": "embeddings over HTTP against a bare llama.cpp loop",
    "encoders": "what a chunk costs an embedding model, with floats and with 8-bit integers",
    "speech": "words, times and speakers of recordings beside plain faster-whisper; noises; the served path",
    "speech-memory": "memory of transcription over many requests, and over files of an hour",
    "speech-models": "real-time factor and memory of larger Whisper models; batches beside single windows",
    "live": "live transcription in real time: delay of final words, errors beside the batch, four at once",
    "recovery": "kill -9 and SIGSTOP of the worker in mid-stream, again and again",
    "governor": "the governor against fixed thread counts, alone and beside busy processes",
    "idle": "wake-ups, processor time and writes of a daemon that nobody asks for anything",
    "pool": "three models in turn within a memory budget, then two at once on the cores",
    "json": "answers held to a JSON schema against free ones, and what a mask costs",
    "responses": "a dialogue that goes on after a restart, against computing it anew",
    "warm-prefixes": "the first chat after a restart, its system prompt read from disk against computed",
    "tensor-types": "other tensor types of a model: forecast and timed speed, KL divergence",
    "memory": "estimated against measured memory of workers",
    "mixed": "mixed precision against llama.cpp's mixtures of the same size: KL divergence on held-out text",
    "dithered": "a model whose weights lie on no grid, made of a quantized one, for `mixed`",
    "decode-rates": "decode rates of files of one model, predicted and timed",
    "task-suites": "four suites of tasks for `edgeagent evaluate`, made of public data",
    "tpe": "optuna's TPE against the greedy allocation of mixed precision, on as many measurements",
    "speed": "predicted against measured decode and prefill rates",
    "turns": "bytes written per conversation turn, and how long a stored write takes",
    "store": "acknowledged writes per second beside what the disk can sync",
    "lifecycle": "how long writes wait beside a sweep and an erasure, and what searching takes",
    "knowledge": "questions of two FAQs in a knowledge base: what is found, how fast, cited, declined",
    "knowledge-calibration": "weights and thresholds of knowledge bases, chosen on half of the questions",
    "knowledge-search": "how long searches take in a knowledge base of 10,000 chunks",
    "bot-answers": "answers of a bot from 40 documents and two FAQs: what is right, declined, cited",
    "answerability": "whether a rank model tells questions that documents answer from others",
    "near-questions": "questions near what documents tell, half of them unanswered: declined, lost, cited",
    "recommendations": "what is recommended for each profile",
}

# A module named json would hide the library's.
MODULES = {
    "json": "structured",
    "bounds": "decode_bounds",
    "intent-updates": "intent_updates",
    "speech-memory": "speech_memory",
    "speech-models": "speech_models",
    "warm-prefixes": "warm_prefixes",
    "tensor-types": "tensor_types",
    "mixed": "mixed_precision",
    "task-suites": "task_suites",
    "decode-rates": "decode_rates",
    "knowledge-calibration": "knowledge_calibration",
    "knowledge-search": "knowledge_search",
    "bot-answers": "bot_answers",
    "near-questions": "near_questions",
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print("Usage: scripts/bench NAME [--help]\n")
        for name, what in NAMES.items():
            print(f"  {name:<22} {what}")
        sys.exit(0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2)
    name = sys.argv.pop(1)
    importlib.import_module(f"scripts.benchmarks.{MODULES.get(name, name)}").main()


main()
