// Says of small histories of one queue, by porcupine, whether a queue with leases can have had them.
//
// Reads one history a line, `{"events":[...]}`, and writes one verdict a line: `ok` or `illegal`.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// Event is one call. Without Answered nobody knows whether it was carried out, or when. Times are µs.
type Event struct {
	Asked    int64  `json:"asked"`
	Answered *int64 `json:"answered"`
	Task     int    `json:"task"`
	// enqueue, claim, complete, fail, release, extend, lookCompleted, lookMissing or lookOther.
	Did      string `json:"did"`
	Token    string `json:"token"`
	Accepted bool   `json:"accepted"`
	// A claim's and a heartbeat's, µs.
	Lease int64 `json:"lease"`
}

// task is what the queue knows of a task.
type task struct {
	there, done bool
	// Whose lease it is; empty: it is ready.
	token string
	// How its leases ended, so that a repeat succeeds: token and how.
	ended string
}

const forever = int64(1) << 60

// The store's time is in whole ms.
const rounding = int64(2_000)

// step answers all states that the call may leave, given what was answered.
func step(state, input, output interface{}) []interface{} {
	now, event := state.(task), input.(Event)
	unknown := event.Answered == nil
	var after []interface{}
	if unknown {
		after = append(after, now)
	}
	may := func(next task) { after = append(after, next) }
	holds := now.token != "" && now.token == event.Token
	end := event.Token + " " + event.Did
	switch event.Did {
	case "enqueue":
		now.there = true
		may(now)
	case "claim":
		if now.there && !now.done && now.token == "" {
			now.token = event.Token
			may(now)
		}
	case "expire":
		may(now)
		if holds {
			now.token = ""
			may(now)
		}
	case "extend":
		if holds == event.Accepted || (unknown && holds) {
			may(now)
		}
	case "complete", "fail", "release":
		if !unknown && !event.Accepted {
			if !holds && now.ended != end {
				may(now)
			}
			break
		}
		if now.ended == end {
			may(now)
		} else if holds {
			now.token, now.ended, now.done = "", end, event.Did == "complete"
			may(now)
		}
	case "lookCompleted":
		if now.done {
			may(now)
		}
	case "lookMissing":
		if !now.there {
			may(now)
		}
	case "lookOther":
		if now.there && !now.done {
			may(now)
		}
	}
	return after
}

// operations are the calls, and for each lease its end, at any time from when it may have run out on.
func operations(events []Event) []porcupine.Operation {
	var all []porcupine.Operation
	add := func(event Event, from, to int64) {
		all = append(all, porcupine.Operation{ClientId: len(all), Input: event, Call: from, Output: nil, Return: to})
	}
	for _, event := range events {
		to := forever
		if event.Answered != nil {
			to = *event.Answered
		}
		add(event, event.Asked, to)
		if event.Did == "claim" {
			// A lease that was extended ends no earlier than its last heartbeat says.
			until := event.Asked + event.Lease
			for _, other := range events {
				extended := other.Did == "extend" && other.Token == event.Token && other.Accepted
				if extended && other.Asked+other.Lease > until {
					until = other.Asked + other.Lease
				}
			}
			expiry := Event{Task: event.Task, Did: "expire", Token: event.Token}
			zero := int64(0)
			expiry.Answered = &zero
			add(expiry, until-rounding, forever)
		}
	}
	return all
}

func byTask(history []porcupine.Operation) [][]porcupine.Operation {
	parts := map[int][]porcupine.Operation{}
	for _, operation := range history {
		number := operation.Input.(Event).Task
		parts[number] = append(parts[number], operation)
	}
	numbers := []int{}
	for number := range parts {
		numbers = append(numbers, number)
	}
	sort.Ints(numbers)
	var all [][]porcupine.Operation
	for _, number := range numbers {
		all = append(all, parts[number])
	}
	return all
}

func main() {
	model := (&porcupine.NondeterministicModel{
		Partition: byTask,
		Init:      func() []interface{} { return []interface{}{task{}} },
		Step:      step,
	}).ToModel()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var history struct {
			Events []Event `json:"events"`
		}
		if err := json.Unmarshal(lines.Bytes(), &history); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		switch porcupine.CheckOperationsTimeout(model, operations(history.Events), 20*time.Second) {
		case porcupine.Ok:
			fmt.Println("ok")
		case porcupine.Illegal:
			fmt.Println("illegal")
		default:
			fmt.Println("unknown")
		}
	}
}
