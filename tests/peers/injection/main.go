// What a MutatingAdmissionPolicy makes of pods, by the API server's own library: no server, no defaults, no Pod Security.
//
//	injection POLICY.yaml < requests.json
//
// A request has a "namespace" and a "pod". For each, a line: {"pod": …} as it is after the policy, or {"error": "…"}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	limits "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

type request struct {
	Namespace corev1.Namespace `json:"namespace"`
	Pod       corev1.Pod       `json:"pod"`
}

type policy struct {
	compiler *cel.CompositedCompiler
	matcher  matchconditions.Matcher
	patchers []patch.Patcher
}

func compile(spec admissionv1.MutatingAdmissionPolicySpec) (*policy, error) {
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	options := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	var variables []cel.NamedExpressionAccessor
	for _, variable := range spec.Variables {
		variables = append(variables, &validating.Variable{Name: variable.Name, Expression: variable.Expression})
	}
	compiler.CompileAndStoreVariables(variables, options, environment.NewExpressions)
	var conditions []cel.ExpressionAccessor
	for i := range spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&spec.MatchConditions[i]))
	}
	matches := compiler.CompileCondition(conditions, options, environment.NewExpressions)
	made := &policy{compiler: compiler, matcher: matchconditions.NewMatcher(matches, spec.FailurePolicy, "policy", "mutate", "it")}
	options.HasPatchTypes = true
	for _, mutation := range spec.Mutations {
		switch mutation.PatchType {
		case admissionv1.PatchTypeJSONPatch:
			condition := &patch.JSONPatchCondition{Expression: mutation.JSONPatch.Expression}
			evaluator := compiler.CompileMutatingEvaluator(condition, options, environment.NewExpressions)
			made.patchers = append(made.patchers, patch.NewJSONPatcher(evaluator))
		case admissionv1.PatchTypeApplyConfiguration:
			condition := &patch.ApplyConfigurationCondition{Expression: mutation.ApplyConfiguration.Expression}
			evaluator := compiler.CompileMutatingEvaluator(condition, options, environment.NewExpressions)
			made.patchers = append(made.patchers, patch.NewApplyConfigurationPatcher(evaluator))
		default:
			return nil, fmt.Errorf("a patch of type %q", mutation.PatchType)
		}
	}
	return made, nil
}

func (p *policy) apply(asked *request) (*corev1.Pod, error) {
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	pod := &asked.Pod
	attributes := admission.NewAttributesRecord(pod, nil, kind, pod.Namespace, pod.Name, resource, "", admission.Create,
		&metav1.CreateOptions{}, false, nil)
	objects := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	versioned, err := admission.NewVersionedAttributes(attributes, kind, objects)
	if err != nil {
		return nil, err
	}
	// What a policy may spend holds for each admission.
	ctx := p.compiler.CreateContext(context.Background())
	if matched := p.matcher.Match(ctx, versioned, nil, nil); matched.Error != nil || !matched.Matches {
		return pod, matched.Error
	}
	for _, patcher := range p.patchers {
		made, err := patcher.Patch(p.compiler.CreateContext(context.Background()), patch.Request{
			MatchedResource: resource, VersionedAttributes: versioned, ObjectInterfaces: objects,
			Namespace: &asked.Namespace, TypeConverter: applyconfigurations.NewTypeConverter(scheme.Scheme),
		}, limits.RuntimeCELCostBudget)
		if err != nil {
			return nil, err
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(made)
		if err != nil {
			return nil, err
		}
		pod = &corev1.Pod{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, pod); err != nil {
			return nil, err
		}
		versioned.VersionedObject = pod
	}
	return pod, nil
}

func run() error {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		return err
	}
	var object admissionv1.MutatingAdmissionPolicy
	first, _, _ := strings.Cut(string(text), "\n---\n")
	if err := yaml.UnmarshalStrict([]byte(first), &object); err != nil {
		return err
	}
	compiled, err := compile(object.Spec)
	if err != nil {
		return err
	}
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		return err
	}
	for i := range requests {
		answer := map[string]any{}
		if pod, err := compiled.apply(&requests[i]); err != nil {
			answer["error"] = err.Error()
		} else {
			answer["pod"] = pod
		}
		if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "injection:", err)
		os.Exit(1)
	}
}
