// Submits a job, watches it, and shows what an error holds. See docs/API.md for how it is built.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "uniquanf/v1"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conn, err := grpc.DialContext(ctx, os.Getenv("UNIQUANF_SERVER"), grpc.WithInsecure(), grpc.WithBlock())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	jobs := pb.NewJobServiceClient(conn)

	examples := os.Args[1]
	bits, samples, length, epochs := int32(3), int64(4), int64(128), int32(4)
	spec := &pb.QuantizationSpec{
		ModelUri:       "file://" + examples + "/tiny",
		CalibrationUri: "file://" + examples + "/tokens/tiny_calib.safetensors",
		Bits:           &bits, NumSamples: &samples, SequenceLength: &length, Epochs: &epochs,
	}
	// The same request id makes the same job, however often the call is repeated.
	job, err := jobs.CreateJob(ctx, &pb.CreateJobRequest{Job: &pb.Job{Spec: spec}, RequestId: "go-example-1"})
	if err != nil {
		log.Fatal(err)
	}
	watch, err := jobs.WatchJob(ctx, &pb.WatchJobRequest{Name: job.Name})
	if err != nil {
		log.Fatal(err)
	}
	for {
		update, err := watch.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err) // UNAVAILABLE: watch again with AfterVersion set to the last version seen
		}
		job = update.Job
	}
	fmt.Println(job.Name, job.State, job.GetArtifact().GetUri())

	wrong := int32(99)
	spec.Bits = &wrong
	_, err = jobs.CreateJob(ctx, &pb.CreateJobRequest{Job: &pb.Job{Spec: spec}})
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			fmt.Println("reason", d.Reason)
		case *errdetails.BadRequest:
			for _, v := range d.FieldViolations {
				fmt.Println(v.Field+":", v.Description)
			}
		}
	}
}
