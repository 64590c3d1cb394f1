	.file	"<string>"
	.section	.rodata.cst4,"aM",@progbits,4
	.p2align	2, 0x0
.LCPI0_0:
	.long	0x3f800000
	.section	.ltext,"axl",@progbits
	.globl	_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	testq	%r8, %r8
	jle	.LBB0_15
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r14
	.cfi_def_cfa_offset 24
	pushq	%rbx
	.cfi_def_cfa_offset 32
	.cfi_offset %rbx, -32
	.cfi_offset %r14, -24
	.cfi_offset %rbp, -16
	movq	144(%rsp), %rax
	movq	88(%rsp), %rcx
	movq	32(%rsp), %rdx
	cmpq	$8, %r8
	jae	.LBB0_3
	xorl	%esi, %esi
.LBB0_9:
	movq	%rsi, %r9
	orq	$1, %r9
	testb	$1, %r8b
	je	.LBB0_11
	vmulss	(%rdx,%rsi,4), %xmm0, %xmm1
	movabsq	$.LCPI0_0, %r10
	vmovss	(%r10), %xmm2
	vminss	%xmm1, %xmm2, %xmm1
	vmovss	%xmm1, (%rdx,%rsi,4)
	vmulss	(%rcx,%rsi,4), %xmm0, %xmm1
	vminss	%xmm1, %xmm2, %xmm1
	vmovss	%xmm1, (%rcx,%rsi,4)
	vmulss	(%rax,%rsi,4), %xmm0, %xmm1
	vminss	%xmm1, %xmm2, %xmm1
	vmovss	%xmm1, (%rax,%rsi,4)
	movq	%r9, %rsi
.LBB0_11:
	cmpq	%r9, %r8
	je	.LBB0_14
	movabsq	$.LCPI0_0, %r9
	vmovss	(%r9), %xmm1
	.p2align	4
.LBB0_13:
	vmulss	(%rdx,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, (%rdx,%rsi,4)
	vmulss	(%rcx,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, (%rcx,%rsi,4)
	vmulss	(%rax,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, (%rax,%rsi,4)
	vmulss	4(%rdx,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, 4(%rdx,%rsi,4)
	vmulss	4(%rcx,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, 4(%rcx,%rsi,4)
	vmulss	4(%rax,%rsi,4), %xmm0, %xmm2
	vminss	%xmm2, %xmm1, %xmm2
	vmovss	%xmm2, 4(%rax,%rsi,4)
	addq	$2, %rsi
	cmpq	%rsi, %r8
	jne	.LBB0_13
	jmp	.LBB0_14
.LBB0_3:
	leaq	(%rdx,%r8,4), %rsi
	leaq	(%rcx,%r8,4), %rbx
	leaq	(%rax,%r8,4), %r10
	cmpq	%rbx, %rdx
	setb	%bpl
	cmpq	%rsi, %rcx
	setb	%r14b
	cmpq	%r10, %rdx
	setb	%r9b
	cmpq	%rsi, %rax
	setb	%r11b
	cmpq	%r10, %rcx
	setb	%r10b
	cmpq	%rbx, %rax
	setb	%bl
	xorl	%esi, %esi
	testb	%r14b, %bpl
	jne	.LBB0_9
	andb	%r11b, %r9b
	jne	.LBB0_9
	andb	%bl, %r10b
	jne	.LBB0_9
	movabsq	$9223372036854775800, %rsi
	andq	%r8, %rsi
	vbroadcastss	%xmm0, %ymm1
	xorl	%r9d, %r9d
	movabsq	$.LCPI0_0, %r10
	vbroadcastss	(%r10), %ymm2
	.p2align	4
.LBB0_7:
	vmulps	(%rdx,%r9,4), %ymm1, %ymm3
	vminps	%ymm3, %ymm2, %ymm3
	vmovups	%ymm3, (%rdx,%r9,4)
	vmulps	(%rcx,%r9,4), %ymm1, %ymm3
	vminps	%ymm3, %ymm2, %ymm3
	vmovups	%ymm3, (%rcx,%r9,4)
	vmulps	(%rax,%r9,4), %ymm1, %ymm3
	vminps	%ymm3, %ymm2, %ymm3
	vmovups	%ymm3, (%rax,%r9,4)
	addq	$8, %r9
	cmpq	%r9, %rsi
	jne	.LBB0_7
	cmpq	%rsi, %r8
	jne	.LBB0_9
.LBB0_14:
	popq	%rbx
	.cfi_def_cfa_offset 24
	popq	%r14
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	.cfi_restore %rbx
	.cfi_restore %r14
	.cfi_restore %rbp
.LBB0_15:
	movq	$0, (%rdi)
	xorl	%eax, %eax
	vzeroupper
	retq
.Lfunc_end0:
	.size	_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end0-_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.globl	_ZN7cpython19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	_ZN7cpython19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
_ZN7cpython19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	pushq	%rbp
	.cfi_def_cfa_offset 16
	pushq	%r15
	.cfi_def_cfa_offset 24
	pushq	%r14
	.cfi_def_cfa_offset 32
	pushq	%r13
	.cfi_def_cfa_offset 40
	pushq	%r12
	.cfi_def_cfa_offset 48
	pushq	%rbx
	.cfi_def_cfa_offset 56
	subq	$376, %rsp
	.cfi_def_cfa_offset 432
	.cfi_offset %rbx, -56
	.cfi_offset %r12, -48
	.cfi_offset %r13, -40
	.cfi_offset %r14, -32
	.cfi_offset %r15, -24
	.cfi_offset %rbp, -16
	movq	%rsi, %rdi
	leaq	160(%rsp), %rax
	movq	%rax, 8(%rsp)
	leaq	168(%rsp), %rax
	movq	%rax, (%rsp)
	movabsq	$.const.brightness, %rsi
	movabsq	$PyArg_UnpackTuple, %r10
	xorl	%ebx, %ebx
	leaq	184(%rsp), %r8
	leaq	176(%rsp), %r9
	movl	$4, %edx
	movl	$4, %ecx
	xorl	%eax, %eax
	callq	*%r10
	testl	%eax, %eax
	je	.LBB1_11
	movabsq	$_ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rax
	cmpq	$0, (%rax)
	je	.LBB1_16
	movq	184(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 192(%rsp)
	vmovups	%ymm0, 216(%rsp)
	movabsq	$NRT_adapt_ndarray_from_python, %r12
	leaq	192(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_17
	cmpq	$4, 216(%rsp)
	jne	.LBB1_17
	movq	192(%rsp), %rbx
	movq	208(%rsp), %r13
	movq	224(%rsp), %rbp
	movq	176(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 320(%rsp)
	vmovups	%ymm0, 344(%rsp)
	leaq	320(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_18
	cmpq	$4, 344(%rsp)
	jne	.LBB1_18
	movq	320(%rsp), %r15
	movq	352(%rsp), %r14
	movq	168(%rsp), %rdi
	vxorps	%xmm0, %xmm0, %xmm0
	vmovups	%ymm0, 256(%rsp)
	vmovups	%ymm0, 280(%rsp)
	leaq	256(%rsp), %rsi
	vzeroupper
	callq	*%r12
	testl	%eax, %eax
	jne	.LBB1_19
	cmpq	$4, 280(%rsp)
	jne	.LBB1_19
	movq	%r13, 152(%rsp)
	movq	%rbx, 144(%rsp)
	movq	256(%rsp), %r12
	movq	288(%rsp), %rbx
	movq	160(%rsp), %rdi
	movabsq	$PyNumber_Float, %rax
	callq	*%rax
	movq	%rax, %r13
	movabsq	$PyFloat_AsDouble, %rax
	movq	%r13, %rdi
	callq	*%rax
	vmovsd	%xmm0, 136(%rsp)
	movabsq	$Py_DecRef, %rax
	movq	%r13, %rdi
	callq	*%rax
	movabsq	$PyErr_Occurred, %rax
	callq	*%rax
	testq	%rax, %rax
	jne	.LBB1_20
	vmovsd	136(%rsp), %xmm0
	vcvtsd2ss	%xmm0, %xmm0, %xmm0
	vmovss	%xmm0, 136(%rsp)
	movabsq	$PyEval_SaveThread, %rax
	callq	*%rax
	movq	%rax, %r13
	movq	%rbx, 112(%rsp)
	movq	%r12, 80(%rsp)
	movq	%r14, 56(%rsp)
	movq	%r15, %r14
	movq	%r15, 24(%rsp)
	movq	%rbp, (%rsp)
	movabsq	$_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rax
	leaq	248(%rsp), %rdi
	movq	144(%rsp), %r15
	movq	%r15, %rdx
	movq	152(%rsp), %r8
	vmovss	136(%rsp), %xmm0
	callq	*%rax
	movl	%eax, %ebp
	movabsq	$PyEval_RestoreThread, %rax
	movq	%r13, %rdi
	callq	*%rax
	movabsq	$NRT_decref, %rbx
	movq	%r15, %rdi
	callq	*%rbx
	movq	%r14, %rdi
	callq	*%rbx
	movq	%r12, %rdi
	callq	*%rbx
	testl	%ebp, %ebp
	jne	.LBB1_12
	movabsq	$_Py_NoneStruct, %rbx
	movabsq	$Py_IncRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
.LBB1_11:
	movq	%rbx, %rax
	addq	$376, %rsp
	.cfi_def_cfa_offset 56
	popq	%rbx
	.cfi_def_cfa_offset 48
	popq	%r12
	.cfi_def_cfa_offset 40
	popq	%r13
	.cfi_def_cfa_offset 32
	popq	%r14
	.cfi_def_cfa_offset 24
	popq	%r15
	.cfi_def_cfa_offset 16
	popq	%rbp
	.cfi_def_cfa_offset 8
	retq
.LBB1_12:
	.cfi_def_cfa_offset 432
	jg	.LBB1_27
	cmpl	$-1, %ebp
	je	.LBB1_24
	cmpl	$-3, %ebp
	jne	.LBB1_25
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	jmp	.LBB1_23
.LBB1_16:
	movabsq	$PyExc_RuntimeError, %rdi
	movabsq	$".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf", %rsi
	jmp	.LBB1_26
.LBB1_17:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	jmp	.LBB1_26
.LBB1_18:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_22
.LBB1_19:
	movabsq	$PyExc_TypeError, %rdi
	movabsq	$".const.can't unbox array from PyObject into native value.  The object maybe of a different type", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	jmp	.LBB1_21
.LBB1_20:
	movabsq	$NRT_decref, %rax
	movq	%r12, %rdi
	callq	*%rax
	movq	144(%rsp), %rbx
.LBB1_21:
	movabsq	$NRT_decref, %rax
	movq	%r15, %rdi
	callq	*%rax
.LBB1_22:
	movabsq	$NRT_decref, %rax
	movq	%rbx, %rdi
.LBB1_23:
	callq	*%rax
.LBB1_24:
	xorl	%ebx, %ebx
	jmp	.LBB1_11
.LBB1_25:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function", %rsi
.LBB1_26:
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
	xorl	%ebx, %ebx
	jmp	.LBB1_11
.LBB1_27:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end1:
	.size	_ZN7cpython19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end1-_ZN7cpython19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.globl	cfunc._ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.p2align	4
	.type	cfunc._ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@function
cfunc._ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf:
	.cfi_startproc
	pushq	%r14
	.cfi_def_cfa_offset 16
	pushq	%rbx
	.cfi_def_cfa_offset 24
	subq	$152, %rsp
	.cfi_def_cfa_offset 176
	.cfi_offset %rbx, -24
	.cfi_offset %r14, -16
	movq	%rdx, %rax
	movq	%rdi, %rdx
	movq	184(%rsp), %rcx
	movq	216(%rsp), %rsi
	movq	240(%rsp), %rdi
	movq	272(%rsp), %r9
	movq	$0, 144(%rsp)
	movq	%r9, 112(%rsp)
	movq	%rdi, 80(%rsp)
	movq	%rsi, 56(%rsp)
	movq	%rcx, 24(%rsp)
	movq	%r8, (%rsp)
	movabsq	$_ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, %rcx
	leaq	144(%rsp), %rdi
	movq	%rax, %r8
	callq	*%rcx
	movq	144(%rsp), %rcx
	movl	$0, 140(%rsp)
	testl	%eax, %eax
	jne	.LBB2_1
.LBB2_5:
	movq	%rcx, %rax
	addq	$152, %rsp
	.cfi_def_cfa_offset 24
	popq	%rbx
	.cfi_def_cfa_offset 16
	popq	%r14
	.cfi_def_cfa_offset 8
	retq
.LBB2_1:
	.cfi_def_cfa_offset 176
	movq	%rcx, %r14
	movabsq	$numba_gil_ensure, %rcx
	leaq	140(%rsp), %rdi
	movl	%eax, %ebx
	callq	*%rcx
	testl	%ebx, %ebx
	jg	.LBB2_2
	movl	%ebx, %eax
	cmpl	$-1, %ebx
	je	.LBB2_4
	cmpl	$-3, %eax
	jne	.LBB2_3
	movabsq	$PyExc_StopIteration, %rdi
	movabsq	$PyErr_SetNone, %rax
	callq	*%rax
	jmp	.LBB2_4
.LBB2_3:
	movabsq	$PyExc_SystemError, %rdi
	movabsq	$".const.unknown error when calling native function.2", %rsi
	movabsq	$PyErr_SetString, %rax
	callq	*%rax
.LBB2_4:
	movabsq	$".const.<numba.core.cpu.CPUContext>", %rdi
	movabsq	$PyUnicode_FromString, %rax
	callq	*%rax
	movq	%rax, %rbx
	movabsq	$PyErr_WriteUnraisable, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$Py_DecRef, %rax
	movq	%rbx, %rdi
	callq	*%rax
	movabsq	$numba_gil_release, %rax
	leaq	140(%rsp), %rdi
	callq	*%rax
	movq	%r14, %rcx
	jmp	.LBB2_5
.LBB2_2:
	movabsq	$PyErr_Clear, %rax
	callq	*%rax
.Lfunc_end2:
	.size	cfunc._ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf, .Lfunc_end2-cfunc._ZN19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf
	.cfi_endproc

	.weak	NRT_incref
	.p2align	4
	.type	NRT_incref,@function
NRT_incref:
	testq	%rdi, %rdi
	je	.LBB3_2
	lock		incq	(%rdi)
.LBB3_2:
	retq
.Lfunc_end3:
	.size	NRT_incref, .Lfunc_end3-NRT_incref

	.weak	NRT_decref
	.p2align	4
	.type	NRT_decref,@function
NRT_decref:
	.cfi_startproc
	testq	%rdi, %rdi
	je	.LBB4_2
	#MEMBARRIER
	lock		decq	(%rdi)
	je	.LBB4_3
.LBB4_2:
	retq
.LBB4_3:
	#MEMBARRIER
	movabsq	$NRT_MemInfo_call_dtor, %rax
	jmpq	*%rax
.Lfunc_end4:
	.size	NRT_decref, .Lfunc_end4-NRT_decref
	.cfi_endproc

	.type	.const.brightness,@object
	.section	.lrodata,"al",@progbits
.const.brightness:
	.asciz	"brightness"
	.size	.const.brightness, 11

	.type	_ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,@object
	.comm	_ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf,8,8
	.type	".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf",@object
	.p2align	4, 0x0
".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf":
	.asciz	"missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf"
	.size	".const.missing Environment: _ZN08NumbaEnv19fastaugself_kernels5numba5color10brightnessB2v2B76c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAFsEMQEpRYBFNAA_3d_3dE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedE5ArrayIfLi1E1C7mutable7alignedEf", 258

	.type	".const.can't unbox array from PyObject into native value.  The object maybe of a different type",@object
	.p2align	4, 0x0
".const.can't unbox array from PyObject into native value.  The object maybe of a different type":
	.asciz	"can't unbox array from PyObject into native value.  The object maybe of a different type"
	.size	".const.can't unbox array from PyObject into native value.  The object maybe of a different type", 89

	.type	".const.unknown error when calling native function",@object
	.p2align	4, 0x0
".const.unknown error when calling native function":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function", 43

	.type	".const.unknown error when calling native function.2",@object
	.p2align	4, 0x0
".const.unknown error when calling native function.2":
	.asciz	"unknown error when calling native function"
	.size	".const.unknown error when calling native function.2", 43

	.type	".const.<numba.core.cpu.CPUContext>",@object
	.p2align	4, 0x0
".const.<numba.core.cpu.CPUContext>":
	.asciz	"<numba.core.cpu.CPUContext>"
	.size	".const.<numba.core.cpu.CPUContext>", 28

	.type	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,@object
	.comm	_ZN08NumbaEnv5numba7cpython8builtins6ol_min12_3clocals_3e4implB2v3B74c8tJTIeFIjxB2IKSgI4CrvQCk0Z4yRYcWsCAgXrKFt1X1eogKfVaTWDAYkQ91Dxg0IFZmgA_3dE15StarArgUniTupleIfLi2EE,8,8
	.section	".note.GNU-stack","",@progbits
